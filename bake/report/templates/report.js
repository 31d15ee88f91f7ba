"use strict";
// The page is complete without this: it filters, follows deep links into folded details, and unfolds for printing.
(() => {
  const tools = document.getElementById("tools");
  const checks = [...document.querySelectorAll(".check")];

  if (tools) {
    const search = document.getElementById("search");
    const severity = document.getElementById("severity");
    const moment = document.getElementById("moment");
    const found = document.getElementById("found");
    const unfold = document.getElementById("unfold");
    const outcomes = [...tools.querySelectorAll("[name=outcome]")];
    const texts = new Map(checks.map((check) => [check, `${check.id} ${check.textContent}`.toLowerCase()]));

    const filter = () => {
      const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
      const wanted = new Set(outcomes.filter((box) => box.checked).map((box) => box.value));
      for (const check of checks) {
        const { outcome, severity: weight, moment: when } = check.dataset;
        check.hidden = !(wanted.has(outcome) && (!severity.value || severity.value === weight)
          && (!moment.value || moment.value === when)
          && words.every((word) => texts.get(check).includes(word)));
      }
      for (const group of document.querySelectorAll(".group")) {
        group.hidden = !group.querySelector(".check:not([hidden])");
      }
      const shown = checks.filter((check) => !check.hidden).length;
      found.textContent = shown === checks.length ? "" : `${shown} of ${checks.length} shown`;
    };

    const reset = () => {
      search.value = severity.value = moment.value = "";
      for (const box of outcomes) box.checked = true;
      filter();
    };

    tools.addEventListener("input", filter);
    tools.addEventListener("submit", (event) => event.preventDefault());
    unfold.addEventListener("click", () => {
      const open = unfold.getAttribute("aria-pressed") !== "true";
      unfold.setAttribute("aria-pressed", String(open));
      unfold.textContent = open ? "Fold all" : "Unfold all";
      for (const check of checks) if (!check.hidden) check.open = open;
    });
    document.addEventListener("keydown", (event) => {
      if (event.key === "Escape" && tools.contains(document.activeElement)) reset();
    });
    tools.hidden = false;
    filter();  // a browser keeps what was typed when a page is loaded again

    window.showCheck = (check) => { if (check.hidden) reset(); };
  }

  const follow = () => {
    let target = null;
    try { target = document.getElementById(decodeURIComponent(location.hash.slice(1))); } catch { return; }
    if (!target) return;
    if (target.classList.contains("check")) window.showCheck?.(target);
    for (let part = target; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    target.scrollIntoView();
    target.querySelector(":scope > summary")?.focus({ preventScroll: true });
  };
  window.addEventListener("hashchange", follow);
  follow();

  // Evidence is printed; packages and logs are too long for paper.
  let folded = [];
  window.addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open]):not([data-long])")];
    for (const part of folded) part.open = true;
  });
  window.addEventListener("afterprint", () => { for (const part of folded) part.open = false; });
})();
