"""Whether a dashboard can be signed in to; does not import Lightning."""

import netrc
import os
from urllib.parse import urlparse


def wandb_credentials() -> bool:
    """Whether there is a key in WANDB_API_KEY or in the netrc file."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    base = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    try:
        logins = netrc.netrc(os.environ.get("NETRC"))
    except (FileNotFoundError, netrc.NetrcParseError):
        return False
    return logins.authenticators(urlparse(base).hostname or "") is not None
