// ipywidgets' own controls lose arrows and letters to JupyterLab: mark all that are in the same box.

const KEEPERS = "button, input, select, textarea";

export default {
  render({ el }) {
    let frame;
    const observer = new MutationObserver((changes) => changes.forEach(({ target }) => mark(target)));

    function mark(box) {
      for (const node of box.querySelectorAll(KEEPERS)) node.setAttribute("data-lm-suppress-shortcuts", "true");
    }

    // Shift+Enter is for running a cell; here it must not press a button.
    const runKey = (event) => event.key === "Enter" && (event.shiftKey || event.ctrlKey || event.metaKey);
    const guard = (event) => runKey(event) && event.target.matches("button") && event.preventDefault();
    let guarded;

    function begin() {
      const box = el.isConnected && el.closest(".widget-vbox");
      if (!box) frame = requestAnimationFrame(begin); // it is put into the page after this function returns
      else {
        observer.observe(box, { childList: true, subtree: true });
        guarded = box;
        box.addEventListener("keydown", guard);
        mark(box);
      }
    }

    begin();
    return () => {
      cancelAnimationFrame(frame);
      observer.disconnect();
      guarded?.removeEventListener("keydown", guard);
    };
  },
};
