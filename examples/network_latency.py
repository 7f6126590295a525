"""What networks cost on a device, by a table that ships with hwnas, and how far to trust it."""

import hwnas

table = hwnas.load_table("ofa-mbv3-w10/host.ort-cpu.fp32.b1.t1")
space = hwnas.load_space("ofa-mbv3-w10", resolutions=table.resolutions)
print(f"{table.target['name']} is {table.verdict}, off by", end=" ")
print(f"{table.validation['error']['value']:.1%} on networks it was not fitted to")
for name, arch in (("smallest", space.smallest), ("largest", space.largest)):
    print(f"{name}: {arch.resolution} px, {hwnas.network_latency(table, arch):.2f} ms")
smaller = {**space.largest.to_json()["choices"], "resolution": 160}
arch = space.from_json({"space": space.name, "choices": smaller})
print(f"largest at 160 px: {hwnas.network_latency(table, arch):.2f} ms")
