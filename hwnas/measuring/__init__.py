"""From a space and a target to measurements: kit, worker, campaign."""
