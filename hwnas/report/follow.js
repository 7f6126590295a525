// Of the page that `hwnas report --serve` serves, and of no file: it follows the run folder.

/** Ask whether the run folder changed, and draw the page anew where it did: `hwnas report --serve`. */
async function follow() {
  const line = document.querySelector(".state");
  try {
    const asked = await fetch("state");
    if (!asked.ok) {  // the folder cannot be read at this moment
      setTimeout(follow, 1000);
      return;
    }
    const told = await asked.json();
    if (told.state !== line.dataset.state && !document.querySelector("main :active")) {
      const answer = await fetch("./");
      const main = new DOMParser().parseFromString(await answer.text(), "text/html")
        .querySelector("main");
      if (main) {
        const name = (folded) => folded.querySelector("summary").textContent;
        const open = [...document.querySelectorAll("main details[open]")].map(name);
        tip.hidden = true;
        document.querySelector("main").replaceWith(main);
        drawAll();
        for (const folded of document.querySelectorAll("main details")) {
          folded.open = open.includes(name(folded));
        }
      }
    }
    document.querySelector(".state").textContent = told.words;
  } catch {
    document.querySelector(".state").textContent = "The server has ended; the page stays as it is.";
  }
  setTimeout(follow, 1000);
}

follow();
