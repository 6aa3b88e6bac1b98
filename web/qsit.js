// A node's text stays on the node, and choices are in the page's language. Newer pages clear the text that a node sends while it runs (from 1.58 at the end of
// the run); what a node returns as ui.text stays here, with its pictures, as on ComfyUI's own Preview Any: over a change
// of tabs, saving, and opening a finished run from the queue. Scores get a bar. Where a page lacks what is used here, the
// nodes show what they did before.
import { app } from "../../scripts/app.js"

const NAME = "qsit_text" // of the widget; never sent to the server and never stored in a workflow
const SENT = "$$node-text-preview" // the page's own widget with the text that a node sent while it ran
const SCORE = /^[^:]+: ([01]\.\d{3})(\s|$)/ // "1: 0.812 excellent (± 0.10)"
const MOST = 160 // pixels; a longer text scrolls

function lineElement(line) {
  const element = Object.assign(document.createElement("div"), { textContent: line })
  const score = SCORE.exec(line)?.[1]
  if (score !== undefined) {
    const [percent, color] = [`${100 * score}%`, `hsl(${120 * score} 70% 42%)`]
    const bar = `linear-gradient(to right, ${color} ${percent}, rgb(128 128 128 / 35%) ${percent})`
    Object.assign(element.style, { background: `${bar} bottom / 100% 5px no-repeat`, padding: "2px 0 7px" })
  }
  return element
}

function addText(node) {
  const element = document.createElement("div")
  element.style.cssText =
    "box-sizing: border-box; overflow: auto; padding: 2px 8px; font-size: 12px; line-height: 16px; " +
    "white-space: pre-wrap; overflow-wrap: anywhere; user-select: text; color: var(--input-text, #ddd); " +
    "background: var(--comfy-input-bg, #222); border-radius: 4px"
  let text = ""
  const widget = node.addDOMWidget(NAME, NAME, element, {
    serialize: false,
    getMinHeight: () => {
      const letters = Math.max(10, (node.size[0] - 40) / 6) // of a line, about
      const heights = [...element.children].map(
        (line) => 16 * Math.max(1, Math.ceil(line.textContent.length / letters)) + (line.style.background ? 9 : 0),
      )
      return 26 + Math.min(heights.reduce((sum, height) => sum + height, 0), MOST)
    },
    getValue: () => text,
    setValue: (value) => {
      text = value
      element.replaceChildren(...text.split("\n").map(lineElement))
    },
  })
  widget.serialize = false
  return widget
}

function show(node, text) {
  const find = (name) => node.widgets?.find((widget) => widget.name === name)
  if (!node.addDOMWidget || !text) return
  const widget = find(NAME) ?? addText(node)
  widget.value = text
  const sent = find(SENT) // the same text, on pages that leave it there
  if (sent) node.removeWidget?.(sent)
  const [width, height] = node.computeSize()
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)])
  node.setDirtyCanvas?.(true, true)
}

// The Load node says what the chosen model is good for before it runs: good_for.py has the lines, by language and model.
function showGoodFor(node, lines) {
  const value = (name) => node.widgets?.find((widget) => widget.name === name)?.value
  const spoken = lines[app.extensionManager?.setting?.get?.("Comfy.Locale")] ?? lines.en
  show(node, spoken[value("folder") ? "" : value("model_name")] ?? spoken[""])
}

// Pages translate the names of inputs, and none of their choices: those of locales/ are shown here. What is stored and
// sent stays as it is. Pages before 1.49 show the stored ones.
const translated = {} // node -> input -> choice -> as it is shown
async function readChoices() {
  const language = app.extensionManager?.setting?.get?.("Comfy.Locale") ?? "en"
  const nodes = language === "en" ? {} : (await (await app.api.fetchApi("/i18n")).json())[language]?.nodeDefs ?? {}
  for (const [name, about] of Object.entries(nodes)) if (name.startsWith("QSiT_")) translated[name] = about.inputs ?? {}
}

function translateChoices(node) {
  for (const widget of node.widgets ?? []) {
    const labels = translated[node.comfyClass]?.[widget.name]?.options
    if (labels) widget.options.getOptionLabel = (value) => labels[value] ?? value ?? ""
  }
}

const isOurs = (node) => node?.comfyClass?.startsWith("QSiT_")
function after(object, name, action) {
  const before = object[name]
  object[name] = function (...values) {
    const result = before?.apply(this, values)
    action(this, ...values)
    return result
  }
}
const textOf = (output) => [output?.text ?? []].flat().join("\n")

app.registerExtension({
  name: "QSiT.Text",
  init: readChoices,
  nodeCreated(node) {
    if (isOurs(node)) translateChoices(node)
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name.startsWith("QSiT_")) return
    after(nodeType.prototype, "onExecuted", (node, output) => show(node, textOf(output)))
    const lines = nodeData.input?.required?.model_name?.[1]?.qsit_good_for
    if (!lines) return
    after(nodeType.prototype, "onConfigure", (node) => showGoodFor(node, lines)) // a stored workflow was opened
    after(nodeType.prototype, "onNodeCreated", (node) => {
      showGoodFor(node, lines)
      for (const widget of node.widgets ?? [])
        if (["model_name", "folder"].includes(widget.name)) after(widget, "callback", () => showGoodFor(node, lines))
    })
  },
  onNodeOutputsUpdated(outputs) {
    const root = app.rootGraph ?? app.graph
    for (const [place, output] of Object.entries(outputs)) {
      const [graph, id] = place.includes(":") ? place.split(":") : [null, place]
      const node = (graph === null ? root : root.subgraphs?.get(graph))?.getNodeById(id)
      if (isOurs(node)) show(node, textOf(output))
    }
  },
})
