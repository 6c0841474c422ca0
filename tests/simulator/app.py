# SPDX-License-Identifier: GPL-3.0-or-later
# SPDX-FileCopyrightText: The thingstream.ztp authors
"""The web application: the platform's three endpoints, and the simulator's own interface."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from simulator import faults, pki, provision, request_log, schemas
from simulator.admin import PREFIX, router
from simulator.faults import Fault
from simulator.profiles import Service
from simulator.provision import Answer
from simulator.store import Store

UNPROCESSED = Answer(200, {})


def create_app(store: Store, authority: pki.Authority) -> FastAPI:
    """Return the application on a store and a certificate authority that exist already."""
    app = FastAPI(
        title="Thingstream ZTP simulator",
        version="1.0.0",
        openapi_url=f"{PREFIX}/openapi.json",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.include_router(router(store))
    app.add_exception_handler(HTTPException, _not_found(store))
    _add_service(app, store, authority, "pointperfect", schemas.KeysResponse | schemas.NtripResponse)
    _add_service(app, store, authority, "pointperfect-live", schemas.NtripResponse)
    _add_service(app, store, authority, "cloudlocate", schemas.CloudLocateResponse)
    return app


def _add_service(app: FastAPI, store: Store, authority: pki.Authority, service: Service, model: Any) -> None:
    # FastAPI does not parse the body: its way of refusing one is not the platform's.
    async def credentials(request: Request) -> Response:
        return await _handle(store, authority, service, request)

    app.add_api_route(
        f"/ztp/{service}/credentials",
        credentials,
        methods=["POST"],
        name=f"Create or return the credentials of a {service} Thing",
        operation_id=f"{service}-credentials",
        tags=["platform"],
        response_model=None,
        responses={200: {"model": model}, **schemas.REFUSALS},
        openapi_extra=schemas.REQUEST_BODY,
    )


async def _handle(store: Store, authority: pki.Authority, service: Service, request: Request) -> Response:
    # No threads: transactions are one after the other anyway, and each hand-over costs a tenth of the throughput.
    document = provision.parse(await request.body())
    fault = _take_fault(store, service, provision.text(document, "hardwareId"))
    if fault and fault.kind == "delay_before":
        await asyncio.sleep(fault.seconds)
    response = _process(store, authority, service, document, fault)
    if fault and fault.kind == "delay_after":
        await asyncio.sleep(fault.seconds)
    return response


def _take_fault(store: Store, service: Service, hardware_id: str | None) -> Fault | None:
    with store.transaction() as connection:
        return faults.take(connection, service, hardware_id)


def _process(
    store: Store, authority: pki.Authority, service: Service, document: dict[str, Any] | None, fault: Fault | None
) -> Response:
    """Answer and log in one transaction; what it did is on disk before the response can be lost."""
    with store.transaction() as connection:
        processes = fault is None or fault.processes
        answer = provision.provision(connection, authority, service, document) if processes else UNPROCESSED
        response = faults.spoiled(fault, answer) if fault else faults.response(answer)
        request_log.add(
            connection,
            method="POST",
            path=f"/ztp/{service}/credentials",
            service=service,
            status=None if isinstance(response, faults.Cut) else response.status_code,
            profile=answer.profile,
            hardware_id=provision.text(document, "hardwareId"),
            given_name=provision.text(document, "givenName"),
            tags=provision.tags(document),
            thing=answer.thing,
            fault=fault.kind if fault else None,
        )
    return response


def _methods(request: Request) -> str:
    """Return every method that the path has; the framework names those of the first route only."""
    routes = (route for route in request.app.routes if isinstance(route, APIRoute))
    found = {method for route in routes if route.path_regex.match(request.url.path) for method in route.methods or ()}
    return ", ".join(sorted(found))


def _not_found(store: Store) -> Any:
    """Return a handler that logs unknown paths and methods too, so that a wrong URL shows (the response is assumed)."""

    async def handle(request: Request, error: HTTPException) -> Response:
        path = request.url.path
        if not path.startswith(f"{PREFIX}/"):
            with store.transaction() as connection:
                request_log.add(connection, method=request.method, path=path, status=error.status_code)
        if error.status_code == 405:
            error = HTTPException(405, headers={"Allow": _methods(request)})
        return await http_exception_handler(request, error)

    return handle
