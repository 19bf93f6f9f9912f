"""Reading runs back: metrics, evaluations, curves and comparisons, for notebooks and reports."""
