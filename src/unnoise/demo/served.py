"""Serving the page to this machine alone, with nothing from the web and nothing sent there."""

import os
import socket
import threading
from pathlib import Path
from typing import Any

from unnoise.demo.desk import Desk

LOOPBACK = "127.0.0.1"
POLICY = (
    "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; connect-src 'self' data: blob:; "
    "form-action 'self'; base-uri 'self'; frame-ancestors 'none'"
)
"""What the browser may load: nothing that is not served here."""


def quiet(folder: Path) -> None:
    """Set gradio up, before it is imported: uploads to ``folder``, and no word to anyone."""
    for name in [each for each in os.environ if each.startswith("GRADIO_")]:
        del os.environ[name]  # such as those that share the page, or widen what it hands out
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["GRADIO_TEMP_DIR"] = str(folder)


def free(port: int) -> int:
    """The port, or any that is free for 0; OSError if it is taken."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))
        found: int = probe.getsockname()[1]
    return found


class Served:
    """A desk's page at ``address`` until ``close``."""

    def __init__(self, desk: Desk, port: int) -> None:
        import gradio as gr
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        from unnoise.demo.page import CSS, Page
        from unnoise.demo.photos import MOST_BYTES

        self.blocks = Page(desk).blocks
        hosts = [LOOPBACK, "localhost"]  # a foreign name that leads here is refused
        guards = [Middleware(TrustedHostMiddleware, allowed_hosts=hosts), Middleware(_Policy)]
        self.blocks.launch(
            server_name=LOOPBACK, server_port=free(port), share=False, inbrowser=False,
            prevent_thread_lock=True, quiet=True, show_error=True, max_file_size=MOST_BYTES,
            footer_links=[], run_history=False, enable_monitoring=False, ssr_mode=False, pwa=False,
            mcp_server=False, theme=gr.themes.Default(), css=CSS, app_kwargs={"middleware": guards},
        )  # fmt: skip
        self.address: str = self.blocks.local_url

    def wait(self) -> None:
        """Until Ctrl-C."""
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            print()

    def close(self) -> None:
        """End it."""
        self.blocks.close(verbose=False)


class _Policy:
    """Adds POLICY to each answer."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def with_policy(event: Any) -> None:
            if event["type"] == "http.response.start":
                own = [(b"content-security-policy", POLICY.encode())]
                own += [
                    (b"referrer-policy", b"no-referrer"),
                    (b"x-content-type-options", b"nosniff"),
                ]
                event = {**event, "headers": [*event["headers"], *own]}
            await send(event)

        await self.app(scope, receive, with_policy)
