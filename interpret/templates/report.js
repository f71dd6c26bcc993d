// Nothing here is needed to read the page: theme, hover, copy, sort and filter.
(() => {
  "use strict";
  const root = document.documentElement;
  root.classList.add("live");
  const themes = ["auto", "light", "dark"];
  const stored = () => { try { return localStorage.getItem("neurofmx-theme"); } catch { return null; } };
  const keep = (name) => { try { localStorage.setItem("neurofmx-theme", name); } catch { /* a page from a file may not store */ } };
  const wanted = location.hash.slice(1);
  let theme = themes.includes(wanted) ? wanted : stored() || "auto";

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => {
      if (theme === "auto") delete root.dataset.theme; else root.dataset.theme = theme;
      button.textContent = { auto: "◐ auto", light: "○ light", dark: "● dark" }[theme];
      button.setAttribute("aria-label", `Theme: ${theme}. Change it.`);
    };
    button.addEventListener("click", () => {
      theme = themes[(themes.indexOf(theme) + 1) % themes.length];
      keep(theme);
      show();
    });
    show();

    const tip = document.getElementById("tip");
    document.addEventListener("pointermove", (event) => {
      const mark = event.target.closest?.("[data-tip]");
      tip.hidden = !mark;
      if (!mark) return;
      tip.textContent = mark.dataset.tip;
      const box = tip.getBoundingClientRect();
      tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - box.width - 8))}px`;
      tip.style.top = `${event.clientY + 18 + box.height > innerHeight ? event.clientY - box.height - 12 : event.clientY + 18}px`;
    });
    document.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });

    const copy = async (text) => {
      try { await navigator.clipboard.writeText(text); } catch {
        const area = Object.assign(document.createElement("textarea"), { value: text });
        document.body.append(area);
        area.select();
        document.execCommand("copy");
        area.remove();
      }
    };
    document.addEventListener("click", async (event) => {
      const source = event.target.closest("[data-copy]");
      if (!source) return;
      await copy(source.dataset.copy);
      const said = source.textContent;
      source.textContent = "copied";
      setTimeout(() => { source.textContent = said; }, 1200);
    });

    for (const table of document.querySelectorAll("table.sort")) {
      if (table.tBodies[0].rows.length < 3) continue;
      table.querySelectorAll("thead th").forEach((head, column) => {
        const trigger = Object.assign(document.createElement("button"), { type: "button" });
        trigger.append(...head.childNodes);
        head.append(trigger);
        head.setAttribute("aria-sort", "none");
        trigger.addEventListener("click", () => {
          const up = head.getAttribute("aria-sort") !== "ascending";
          table.querySelectorAll("thead th").forEach((other) => other.setAttribute("aria-sort", "none"));
          head.setAttribute("aria-sort", up ? "ascending" : "descending");
          const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
          const numeric = (text) => (text === "" ? NaN : Number(text));
          const body = table.tBodies[0];
          const rows = [...body.rows].sort((a, b) => {
            const [x, y] = [key(a), key(b)];
            const [p, q] = [numeric(x), numeric(y)];
            return (Number.isNaN(p) || Number.isNaN(q) ? x.localeCompare(y) : p - q) * (up ? 1 : -1);
          });
          body.append(...rows);
        });
      });
    }

    for (const input of document.querySelectorAll("input[data-filter]")) {
      const items = [...document.querySelectorAll(input.dataset.filter)];
      const count = input.parentElement.querySelector("output");
      input.addEventListener("input", () => {
        const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
        for (const item of items) item.hidden = !words.every((w) => item.textContent.toLowerCase().includes(w));
        count.textContent = words.length ? `${items.filter((i) => !i.hidden).length} of ${items.length} shown` : "";
      });
    }
    addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
  });
  if (theme !== "auto") root.dataset.theme = theme;
})();
