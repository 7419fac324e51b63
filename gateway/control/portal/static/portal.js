// What needs a script: copying, a panel that renews itself, and forgetting a secret when its page is left.
// Without any of it, every page works: what is copied can be selected, and the panel has a link to look again.
"use strict";

const EVERY_MS = 3000;

for (const button of document.querySelectorAll("[data-copies]")) {
  const said = document.getElementById(button.dataset.says);
  button.hidden = false;
  button.addEventListener("click", async () => {
    const source = document.getElementById(button.dataset.copies);
    try {
      await navigator.clipboard.writeText(source.textContent);
      said.textContent = "Copied.";
    } catch {
      const range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      said.textContent = "Selected: copy it with your keyboard.";
    }
  });
}

// A page that is left may be kept in memory, to be shown again at a step back. A secret is not to be in it.
const secrets = document.querySelectorAll("[data-once]");
if (secrets.length > 0) {
  addEventListener("pagehide", () => {
    for (const element of secrets) {
      element.replaceChildren("The secret was shown once, and is gone.");
    }
  });
}

for (const panel of document.querySelectorAll("[data-renewed-from]")) {
  let shown = panel.innerHTML;
  const said = () => document.getElementById(`${panel.id}-said`).textContent;
  const renew = async () => {
    if (document.hidden || panel.contains(document.activeElement)) {
      return;
    }
    try {
      const answer = await fetch(panel.dataset.renewedFrom, { headers: { Accept: "text/html" } });
      if (!answer.ok) {
        return;
      }
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const renewed = page.getElementById(panel.id);
      if (renewed !== null && renewed.innerHTML !== shown) {
        const before = said();
        shown = renewed.innerHTML;
        panel.replaceChildren(...renewed.childNodes);
        if (said() !== before) {
          document.getElementById(`${panel.id}-news`).textContent = said(); // read aloud
        }
      }
    } catch {
      // The next time, perhaps.
    }
  };
  setInterval(renew, EVERY_MS);
}
