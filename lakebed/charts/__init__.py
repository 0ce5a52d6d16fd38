"""Charts of results: SVG without a dependency, a script or a request. `draw` chooses the chart."""
