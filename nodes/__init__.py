"""The ComfyUI face, installed as ``qsit_plugin.nodes``. Empty in this version: the nodes arrive in a later one."""

NODE_CLASS_MAPPINGS: dict[str, type] = {}
NODE_DISPLAY_NAME_MAPPINGS: dict[str, str] = {}
