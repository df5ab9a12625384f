// A page that is served: it asks whether its runs have changed, and is loaded anew if so; not while
// somebody is at it.

let touched = 0;
for (const kind of ["pointerdown", "keydown", "wheel"]) {
  addEventListener(kind, () => (touched = Date.now()));
}
setInterval(async () => {
  try {
    const found = (await fetch(location.href, { method: "HEAD" })).headers.get("ETag");
    const free = document.hidden || Date.now() - touched > 30000;
    if (free && found && found !== document.documentElement.dataset.state) location.reload();
  } catch {
    document.querySelector("footer").textContent = "No longer live: unnoise-report --watch has ended.";
  }
}, 3000);
