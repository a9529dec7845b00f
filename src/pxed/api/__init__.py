"""The admin API: REST with an OpenAPI description, and a live stream of what happens, on a unix socket.

`control` is what the API asks of the server and holds no code: commands import its records cheaply. `routes.create_app`
makes the Litestar application over a `Control`, `server.ApiServer` serves it in the running event loop.
"""
