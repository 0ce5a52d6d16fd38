"""The jobs that keep an object in order: rollup, archive, prune, compact."""
