// The theme wraps wide tables and adds buttons when a page is shown: keys reach them, and each has a name.
// Its dialog of the search has none.
document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
new MutationObserver(() => {
  for (const each of document.querySelectorAll(".md-typeset__scrollwrap")) each.tabIndex = 0;
  document.querySelectorAll(".md-code__nav").forEach((each, i) => {
    if (!each.ariaLabel) each.ariaLabel = `Block ${i + 1}`;
  });
}).observe(document.body, { childList: true, subtree: true });
