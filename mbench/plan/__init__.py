"""From a suite file to cells with keys and costs, before any model is loaded."""
