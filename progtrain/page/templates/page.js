"use strict";
(function () {
  const errors = [];
  window.addEventListener("error", (event) => errors.push(String(event.message)));
  const all = (selector, inside) => Array.from((inside || document).querySelectorAll(selector));
  document.documentElement.classList.add("js");

  // tabs
  const select = (tab) => {
    for (const other of all("[role=tab]", tab.parentElement)) {
      const chosen = other === tab;
      other.setAttribute("aria-selected", String(chosen));
      other.tabIndex = chosen ? 0 : -1;
      document.getElementById(other.getAttribute("aria-controls")).hidden = !chosen;
    }
  };
  for (const list of all("[role=tablist]")) {
    const tabs = all("[role=tab]", list);
    tabs.forEach((tab, index) => {
      tab.addEventListener("click", () => select(tab));
      tab.addEventListener("keydown", (event) => {
        const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
        if (!move) return;
        const next = tabs[(index + move + tabs.length) % tabs.length];
        select(next);
        next.focus();
      });
    });
    if (tabs.length) select(tabs[0]);
  }

  // arms: shown or not, and what is under the pointer before the others
  const drawn = (key) => all("svg.chart [data-arm]").filter((e) => e.dataset.arm === key);
  for (const chip of all("[data-toggle]")) {
    chip.addEventListener("click", () => {
      const on = chip.getAttribute("aria-pressed") !== "true";
      chip.setAttribute("aria-pressed", String(on));
      for (const element of drawn(chip.dataset.toggle)) element.classList.toggle("off", !on);
    });
  }
  const point = (key, on) => {
    for (const chart of all("svg.chart")) chart.classList.toggle("dim", on);
    for (const element of drawn(key)) element.classList.toggle("hot", on);
  };
  for (const element of all("[data-toggle], tr[data-arm]")) {
    const key = element.dataset.toggle || element.dataset.arm;
    element.addEventListener("pointerenter", () => point(key, true));
    element.addEventListener("pointerleave", () => point(key, false));
  }

  // tooltips: a title of a drawing shows at once; without this script browsers show it themselves
  const tip = document.getElementById("tip");
  for (const title of all("svg.chart title")) {
    const element = title.parentElement;
    if (element.tagName === "svg") continue;
    const text = title.textContent;
    title.remove();
    element.setAttribute("aria-label", text);
    element.addEventListener("pointermove", (event) => {
      tip.textContent = text;
      tip.hidden = false;
      const left = Math.min(event.clientX + 14, window.innerWidth - tip.offsetWidth - 8);
      const below = event.clientY + 16 + tip.offsetHeight < window.innerHeight;
      tip.style.left = Math.max(left, 8) + "px";
      tip.style.top = (below ? event.clientY + 16 : event.clientY - tip.offsetHeight - 10) + "px";
    });
    element.addEventListener("pointerleave", () => { tip.hidden = true; });
  }

  // tables: a click on a head sorts, what has no value comes last
  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => head.addEventListener("click", () => {
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of heads) other.setAttribute("aria-sort", "none");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        const [x, y] = [value(a), value(b)];
        if (x === undefined || y === undefined) return (x === undefined) - (y === undefined);
        const numbers = x !== "" && y !== "" && !isNaN(x) && !isNaN(y);
        return (numbers ? x - y : x.localeCompare(y)) * (up ? 1 : -1);
      };
      table.tBodies[0].append(...all("tbody tr", table).sort(compare));
    }));
  }

  // a page opened with #self-test tries all of this and says in data-self-test how it went
  const check = (ok, what) => { if (!ok) errors.push(what); };
  const selfTest = () => {
    for (const tab of all("[role=tab]")) {
      tab.click();
      const open = all("[role=tab]", tab.parentElement).map((each) => each.getAttribute("aria-controls"))
        .filter((id) => !document.getElementById(id).hidden);
      check(open.length === 1 && open[0] === tab.getAttribute("aria-controls"), "tab " + tab.id);
    }
    for (const list of all("[role=tablist]")) all("[role=tab]", list)[0].click();
    for (const chip of all("[data-toggle]")) {
      const parts = drawn(chip.dataset.toggle);
      chip.click();
      check(parts.every((part) => getComputedStyle(part).display === "none"), "hide " + chip.dataset.toggle);
      chip.click();
      check(parts.every((part) => !part.classList.contains("off")), "show " + chip.dataset.toggle);
    }
    for (const table of all("table.sortable")) {
      all("thead th", table).forEach((head, column) => {
        const count = table.tBodies[0].rows.length;
        head.click();
        const rows = Array.from(table.tBodies[0].rows);
        const values = rows.map((row) => row.cells[column].dataset.value).filter((x) => x !== undefined);
        const numbers = values.every((x) => x !== "" && !isNaN(x));
        check(rows.length === count, "rows lost");
        check(!numbers || values.every((x, i) => i === 0 || +values[i - 1] <= +x), "sort " + column);
      });
    }
    const hot = all("svg.chart .arm")[0];
    if (hot) {
      hot.dispatchEvent(new PointerEvent("pointermove", { clientX: 5, clientY: 5 }));
      check(!tip.hidden && tip.textContent === hot.getAttribute("aria-label"), "tooltip");
      hot.dispatchEvent(new PointerEvent("pointerleave"));
      check(tip.hidden, "tooltip stays");
    }
    const wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
    check(wide <= 0, "page is wider than the window by " + wide);
  };
  if (location.hash === "#self-test") {
    try { selfTest(); } catch (error) { errors.push(String(error)); }
    const counts = [all("[role=tab]").length, all("[data-toggle]").length, all("svg.chart").length];
    document.documentElement.dataset.selfTest = errors.length ? "failed: " + errors.join("; ") : "passed " + counts.join(" ");
  }
})();
