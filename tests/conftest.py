from hypothesis import HealthCheck, settings

# The machine that runs the suite is shared: an example may be slow without being wrong.
settings.register_profile("lakebed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("lakebed")
