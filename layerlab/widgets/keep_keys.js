// ipywidgets' own controls lose arrows and letters to JupyterLab: mark all that are in the same box.

const KEEPERS = "button, input, select, textarea";

export default {
  render({ el }) {
    let frame;
    const observer = new MutationObserver((changes) => changes.forEach(({ target }) => mark(target)));

    function mark(box) {
      for (const node of box.querySelectorAll(KEEPERS)) node.setAttribute("data-lm-suppress-shortcuts", "true");
    }

    function begin() {
      const box = el.isConnected && el.closest(".widget-vbox");
      if (!box) frame = requestAnimationFrame(begin); // it is put into the page after this function returns
      else {
        observer.observe(box, { childList: true, subtree: true });
        mark(box);
      }
    }

    begin();
    return () => {
      cancelAnimationFrame(frame);
      observer.disconnect();
    };
  },
};
