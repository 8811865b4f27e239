"""The paper's figures, one file each, drawn from stored results; what is missing is computed first."""
