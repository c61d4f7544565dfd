"""A server made with the framework of PyPI's `mcp`, version 1 or 2: `mcp_framework.py TRANSPORT PORT [TOKEN | --modern]`.

With TOKEN it wants that as bearer token, over streamable HTTP. With --modern version 2 refuses `initialize`, so that only the
protocol of 2026-07-28 is left; on its own it speaks both.
"""

import os
import sys

try:
    from mcp.server.fastmcp import Context, FastMCP as Server
    from mcp.server.fastmcp.exceptions import ToolError

    IS_FIRST = True
except ImportError:
    from mcp.server.mcpserver import Context, MCPServer as Server
    from mcp.server.mcpserver.exceptions import ToolError
    from mcp.shared.exceptions import MCPError

    IS_FIRST = False
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings

transport, port, *token = sys.argv[1:]
is_modern = token == ["--modern"]
url = f"http://127.0.0.1:{port}"


class Verifier:
    async def verify_token(self, given):
        return AccessToken(token=given, client_id="c", scopes=["use"]) if given == token[0] else None


async def refuse_initialize(context, call_next):
    if context.method == "initialize":
        raise MCPError(code=-32601, message="Method not found")
    return await call_next(context)


options = {}
if is_modern:
    options["middleware"] = [refuse_initialize]
elif token:
    options["token_verifier"] = Verifier()
    options["auth"] = AuthSettings(issuer_url=url, resource_server_url=f"{url}/mcp", required_scopes=["use"])
# The first version takes its address when it is made, the second when it runs.
address = {"host": "127.0.0.1", "port": int(port)}
server = Server("framework", **options, **(address if IS_FIRST else {}))


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
async def count(to: int, ctx: Context) -> str:
    """Counts, and tells of its progress."""
    for number in range(to):
        await ctx.report_progress(number, to)
    return f"counted to {to}"


@server.tool()
def fail() -> str:
    """Fails."""
    raise ToolError("the reactor is offline")


@server.tool()
def variables() -> str:
    """Names the variables of this process."""
    return " ".join(sorted(os.environ))


@server.tool(name="greet.in/all: languages")
def greet(name: str) -> str:
    """Has a name that no provider takes."""
    return f"Grüße, {name} 👋"


server.run(transport, **({} if IS_FIRST or transport == "stdio" else address))
