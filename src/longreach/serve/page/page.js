// What the page does without asking the server: light and dark, keys, scrolling to what is cited.
"use strict";
window.longreach = (() => {
  const themes = ["auto", "dark", "light"];
  const words = { auto: "Auto", dark: "Dark", light: "Light" };
  const system = matchMedia("(prefers-color-scheme: dark)");
  let opener = null;

  const theme = () => {
    try {
      const kept = localStorage.getItem("longreach-theme");
      return themes.includes(kept) ? kept : "auto";
    } catch {
      return "auto";
    }
  };
  const apply = () => {
    const dark = theme() === "dark" || (theme() === "auto" && system.matches);
    document.documentElement.dataset.theme = dark ? "dark" : "light";
    window.Quasar?.Dark.set(dark);
    const button = document.querySelector(".theme");
    if (button) button.dataset.words = words[theme()];
  };
  const cycle = () => {
    try {
      localStorage.setItem("longreach-theme", themes[(themes.indexOf(theme()) + 1) % themes.length]);
    } catch {
      // Kept by nobody: it stays as the system says.
    }
    apply();
  };
  const reveal = () => setTimeout(() => {
    const marked = document.querySelector(".source mark") ?? document.querySelector(".source .passage");
    const page = document.querySelector(".source .page");
    if (marked && page) {
      const [here, there] = [page.getBoundingClientRect(), marked.getBoundingClientRect()];
      page.scrollTop += there.top - here.top - Math.max(0, (here.height - there.height) / 2);
    }
    document.querySelector(".source mark")?.focus({ preventScroll: true });
  }, 30);
  const typing = (target) => target.matches?.("input, textarea, select, [contenteditable], .q-field *");
  const seen = (selector) => [...document.querySelectorAll(selector)].find((one) => one.offsetParent !== null);

  const toQuestion = (tries = 60) => {
    const here = seen(".question textarea");
    if (here) here.focus();
    else if (tries) setTimeout(() => toQuestion(tries - 1), 50);
  };

  addEventListener("keydown", (event) => {
    if (event.isComposing || event.ctrlKey || event.metaKey || event.altKey) return;
    const question = event.target.matches?.(".question textarea");
    if (event.key === "Enter" && question && !event.shiftKey) {
      event.preventDefault();
      event.stopPropagation();
      seen(".go")?.click();
    } else if (event.key === "/" && !typing(event.target)) {
      event.preventDefault();
      if (!seen(".question textarea")) seen(".tab-ask")?.click();
      toQuestion();
    } else if (event.key === "Escape" && !document.querySelector(".q-dialog, .q-menu")) {
      const close = seen(".source .close");
      if (close) close.click();
      else document.activeElement?.blur?.();
    }
  }, true);
  addEventListener("click", (event) => {
    const target = event.target.closest?.("button");
    if (target?.classList.contains("opens")) opener = target;
    if (target?.classList.contains("close") && opener?.isConnected) opener.focus();
    if (target?.classList.contains("theme")) cycle();
  }, true);
  system.addEventListener("change", apply);
  apply();
  addEventListener("load", () => setTimeout(apply, 0));
  new MutationObserver((_, observer) => {
    if (document.querySelector(".theme")) {
      observer.disconnect();
      apply();
      toQuestion();
    }
  }).observe(document.documentElement, { childList: true, subtree: true });
  return { reveal };
})();
