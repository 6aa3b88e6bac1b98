"""ComfyUI's page in headless chromium, as far as tests and screenshots need it."""

import contextlib
import shutil
import time

from tests.nodes.live import PATIENCE

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
READY = "window.app && window.app.graph && window.app.extensionManager"
NOT_YET = ("user.css", "/userdata", "favicon.ico")  # the page asks for them; a fresh base directory has none of them
NEWER = ("/jobs?", "JobsApiError", "/global_subgraphs", "/index_logo")  # what a newer page misses in ComfyUI 0.3.64
NOTE = "MarkdownNote"
"""The page's own node for a text; it is not sent to the server."""
LISTEN = """() => { const sent = window.sent = [];
    window.app.api.addEventListener("progress_text", ({detail}) => sent.push([`${detail.nodeId}`, detail.text])); }"""


class Page:
    def __init__(self, tab, server):
        self.tab, self.server = tab, server
        self.complaints_at_start, self.complaints = [], []
        tab.on("console", self._hear)
        tab.on("pageerror", lambda error: self.complaints.append(f"{error}\n{error.stack or ''}"))

    def _hear(self, message):
        where = message.location.get("url", "")
        elsewhere = where.startswith("http") and not where.startswith(self.server.url)  # news of ComfyUI's makers
        if (
            message.type == "error"
            and not elsewhere
            and not any(part in message.text + where for part in NOT_YET + NEWER)
        ):
            self.complaints.append(f"{message.text} @ {where}")

    def open(self):
        """Open the page twice: the first visit of a new user shows the template browser instead of the graph."""
        self.tab.goto(self.server.url)
        self.tab.wait_for_function(READY)
        self.tab.evaluate(
            """async () => { const settings = window.app.extensionManager.setting;
            await settings.set("Comfy.TutorialCompleted", true); await settings.set("Comfy.Minimap.Visible", false);
            await settings.set("Comfy.Graph.CanvasInfo", false); }"""
        )
        self.tab.reload()
        self.tab.wait_for_function(READY)
        self.tab.wait_for_function("Object.keys(window.LiteGraph.registered_node_types).includes('QSiT_Score')")
        time.sleep(2)  # the default workflow is loaded late and would replace ours
        self.tab.keyboard.press("Escape")
        self.complaints_at_start, self.complaints = self.complaints, []

    def load(self, workflow: dict, name: str):
        self.tab.evaluate(
            "async ([workflow, name]) => { await window.app.loadGraphData(workflow, true, true, name) }",
            [workflow, name],
        )

    def queue(self) -> dict:
        """Press the page's own queue function and wait until the run is in the history; return that entry.

        ComfyUI's cache is emptied before: a node that it answers for is not run and sends no text.
        """
        self.server.post("/free", {"unload_models": True, "free_memory": True})
        time.sleep(1.5)
        before = set(self.server.get("/history"))
        self.tab.evaluate(LISTEN)
        self.tab.evaluate("async () => { await window.app.queuePrompt(0) }")
        for _ in range(PATIENCE * 10):
            new = {key: entry for key, entry in self.server.get("/history").items() if key not in before}
            if new:
                time.sleep(1)  # a newer page clears the nodes' own texts only now
                return next(iter(new.values()))
            time.sleep(0.1)
        raise AssertionError("the workflow did not finish")

    def texts(self, node: int) -> list[str]:
        """The texts that a node sent while the last queued workflow ran."""
        return self.tab.evaluate("node => window.sent.filter(([id]) => id === node).map(([, text]) => text)", str(node))

    def language(self, code: str):
        """Choose the page's language, as "zh", and open the page again."""
        self.tab.evaluate("async code => await window.app.extensionManager.setting.set('Comfy.Locale', code)", code)
        self.open()

    def render(self, how: str):
        """``how``: "old" (canvas) or "Vue"; older pages know the first alone."""
        self.tab.evaluate(
            "async on => await window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", how == "Vue"
        )

    def shown(self, node: int) -> dict:
        """The text that stays on a node, once it can be seen there, with the bar of each line, and all its widgets."""
        widget = f"window.app.graph.getNodeById({node})?.widgets?.find(w => w.name === 'qsit_text')"
        # A page leaves out what lies outside the window, or is shrunk until nobody could read it.
        self.tab.evaluate("() => { window.app.canvas.ds.scale = 1 }")
        self.tab.evaluate("id => window.app.canvas.centerOnNode(window.app.graph.getNodeById(id))", node)
        self.tab.wait_for_function(f"{widget}?.element.getBoundingClientRect().height > 10")
        return self.tab.evaluate(
            f"""() => {{ const widget = {widget};
            return {{text: widget.value, lines: widget.element.innerText.split("\\n"), names:
                window.app.graph.getNodeById({node}).widgets.map(w => w.name),
                bars: [...widget.element.children].map(line => line.style.background)}} }}"""
        )

    def preview(self, node: int) -> str:
        """The text that a Preview Any node shows, once it is there."""
        value = f"window.app.graph.getNodeById({node}).widgets.find(w => w.name.startsWith('preview'))?.value"
        self.tab.wait_for_function(value)
        return self.tab.evaluate(value)


@contextlib.contextmanager
def opened(server, width=1400, height=800):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            tab = browser.new_page(viewport={"width": width, "height": height})
            tab.set_default_timeout(1000 * PATIENCE)
            page = Page(tab, server)
            page.open()
            yield page
        finally:
            browser.close()
