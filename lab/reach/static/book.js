// What scrolls sideways can be reached by keyboard, and says what it is.
document.addEventListener("DOMContentLoaded", () => {
  for (const box of document.querySelectorAll("article pre, article figure, article table")) {
    if (box.scrollWidth <= box.clientWidth + 1) continue;
    box.tabIndex = 0;
    box.setAttribute("aria-label", box.tagName === "PRE" ? "code or output" : box.tagName.toLowerCase());
  }
});
