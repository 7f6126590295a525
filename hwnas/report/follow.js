// Of the page that `hwnas report --serve` serves, and of no file: it follows the run folder.

/** Ask whether the run folder changed, and draw the page anew where it did: `hwnas report --serve`. */
async function follow() {
  const line = document.querySelector(".state");
  try {
    const told = await (await fetch("state")).json();
    if (told.state !== line.dataset.state) {
      const page = new DOMParser().parseFromString(await (await fetch("./")).text(), "text/html");
      tip.hidden = true;
      document.querySelector("main").replaceWith(page.querySelector("main"));
      drawAll();
    }
    document.querySelector(".state").textContent = told.words;
  } catch {
    line.textContent = "The server has ended; the page stays as it is.";
  }
  setTimeout(follow, 1000);
}

follow();
