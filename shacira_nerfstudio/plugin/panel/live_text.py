"""Text in the viewer that changes while one looks."""

from __future__ import annotations

from typing import Any

from nerfstudio.viewer.viewer_elements import ViewerElement


class LiveText(ViewerElement[str]):
    """Markdown. Not a ViewerText: the host renders anew whenever the value of one changes.

    Args:
        text: What is shown at first.
    """

    def __init__(self, text: str) -> None:
        super().__init__("text")
        self.text = text

    @property
    def is_shown(self) -> bool:
        """Whether there is a viewer."""
        return self.gui_handle is not None

    def _create_gui_handle(self, viser_server: Any) -> None:
        self.gui_handle = viser_server.gui.add_markdown(self.text)

    def install(self, viser_server: Any) -> None:
        self._create_gui_handle(viser_server)

    def show(self, text: str) -> None:
        """Changes it, from any thread."""
        if text == self.text:
            return
        self.text = text
        handle: Any = self.gui_handle
        if handle is not None:
            handle.content = text
