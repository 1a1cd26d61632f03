"""The paths of a server: /predict, /health, /info, /openapi.json, and a page that works offline."""

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from src.deployment.serving.limits import Limits, Refusal
from src.deployment.serving.service import PredictionService

DISCARDED = 64_000_000  # bytes that are read, and not kept, of a body that is too large
PAGE = Path(__file__).with_name("page.html")


def make_app(
    service: PredictionService, info: Mapping[str, object], openapi: Mapping[str, object]
) -> Starlette:
    """Returns the application.

    Args:
        service: Predicts rows.
        info: What /info tells.
        openapi: The OpenAPI document.
    """

    async def predict(request: Request) -> Response:
        try:
            body = await read_body(request, service.limits)
            answer = await service.answer(request.headers.get("content-type", ""), body)
        except Refusal as refusal:
            return refuse(refusal)
        return JSONResponse(answer)

    async def show_health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def show_info(request: Request) -> Response:
        return JSONResponse(info)

    async def show_openapi(request: Request) -> Response:
        return JSONResponse(openapi)

    async def show_page(request: Request) -> Response:
        return HTMLResponse(page)

    page = make_page(openapi)
    routes = [
        Route("/", show_page),
        Route("/docs", show_page),
        Route("/predict", predict, methods=["POST"]),
        Route("/health", show_health),
        Route("/info", show_info),
        Route("/openapi.json", show_openapi),
    ]
    handlers = {HTTPException: refuse_path, ClientDisconnect: leave, Exception: fail}
    return Starlette(routes=routes, exception_handlers=handlers)


async def read_body(request: Request, limits: Limits) -> bytes:
    """Returns the body of a request.

    Raises:
        Refusal: It is too large, or comes too slowly.
        ClientDisconnect: The client has gone.
    """
    too_large = Refusal(413, f"the body is larger than {limits.max_body} bytes: send fewer rows")
    length = request.headers.get("content-length", "")
    announced = int(length) if length.isdigit() and len(length) < 20 else 0
    # a client that has not begun to send hears at once
    most = limits.max_body if "expect" in request.headers else DISCARDED
    if announced > most:
        raise too_large

    body = bytearray()
    size = 0
    try:
        async with asyncio.timeout(limits.time_limit):
            async for chunk in request.stream():
                size += len(chunk)
                if size > DISCARDED:
                    break
                # a client reads no answer before it has sent all: the rest is read, but not kept
                if size > limits.max_body:
                    body.clear()
                else:
                    body += chunk
    except TimeoutError:
        if size <= limits.max_body:
            raise Refusal(408, f"the body has not come within {limits.time_limit:g} s") from None
    if size > limits.max_body:
        raise too_large
    return bytes(body)


def refuse(refusal: Refusal) -> Response:
    """Returns the answer to a request that is refused."""
    headers = {}
    # the rest of the body is not read: the connection cannot go on
    if refusal.status in (408, 413):
        headers["Connection"] = "close"
    if refusal.status == 503:
        headers["Retry-After"] = "1"
    return JSONResponse(refusal.to_json(), refusal.status, headers)


async def refuse_path(request: Request, error: Exception) -> Response:
    """Answers a request for a path that is not there, or by another method."""
    assert isinstance(error, HTTPException)
    paths = "POST /predict, GET /health, /info, /openapi.json and /docs"
    response = refuse(Refusal(error.status_code, f"{error.detail}: there are {paths}"))
    response.headers.update(error.headers or {})
    return response


async def leave(request: Request, error: Exception) -> Response:
    """Ends a request whose client has gone; nobody reads the answer."""
    return Response(status_code=400)


async def fail(request: Request, error: Exception) -> Response:
    """Answers in one line where the server has failed; its terminal has the traceback."""
    return refuse(Refusal(500, "the server has failed on this request; its terminal says how"))


def make_page(openapi: Mapping[str, object]) -> str:
    """Returns the page that describes the server and tries it out."""
    # text of the data must not end the script that holds it
    content = json.dumps(openapi).replace("<", "\\u003c")
    return PAGE.read_text().replace("OPENAPI", content)
