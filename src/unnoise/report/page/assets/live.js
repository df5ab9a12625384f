// A page that is served: it asks whether its runs have changed, and is loaded anew if so.

setInterval(async () => {
  try {
    const found = (await fetch(location.href, { method: "HEAD" })).headers.get("ETag");
    if (found && found !== document.documentElement.dataset.state) location.reload();
  } catch {
    document.querySelector("footer").textContent = "No longer live: unnoise-report --watch has ended.";
  }
}, 3000);
