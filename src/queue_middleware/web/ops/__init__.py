"""Routes for what operates the service: health checks of load balancers and orchestrators, and metrics.

May import: what `web` may import, and the modules of `web` below this package.
Begin with `routes`.
"""
