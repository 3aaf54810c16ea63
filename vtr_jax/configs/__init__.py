"""Training recipes, one file per system: `vtr train --config=clip4clip:msrvtt`."""
