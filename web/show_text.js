// Shows the text of a Q-SiT node on the node. ComfyUI's page has no such thing of its own: it shows texts of a run's
// progress, and newer versions take them away when the run ends. No more JavaScript than this is needed.
import { app } from "../../scripts/app.js";
import { ComfyWidgets } from "../../scripts/widgets.js";

const NAME = "qsit_text";

function textWidget(node) {
  const there = node.widgets?.find((widget) => widget.name === NAME);
  if (there) return there;
  const widget = ComfyWidgets.STRING(node, NAME, ["STRING", { multiline: true }], app).widget;
  // A result and no input: neither saved with the workflow nor sent with it.
  widget.serialize = false;
  widget.options.serialize = false;
  const box = widget.inputEl ?? widget.element;
  if (box) {
    box.readOnly = true;
    box.style.fontSize = "13px"; // the page's 10 px are for writing prompts
  }
  // Room for it, but a user's larger node is not made smaller.
  const least = node.computeSize();
  node.setSize([Math.max(node.size[0], least[0]), Math.max(node.size[1], least[1])]);
  return widget;
}

app.registerExtension({
  name: "qsit.show_text",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("QSiT_")) return;
    const before = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (message) {
      before?.apply(this, arguments);
      if (!message?.text) return;
      textWidget(this).value = message.text.join("\n");
      app.graph.setDirtyCanvas(true, true);
    };
  },
});
