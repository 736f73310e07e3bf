"""One small reader per dataset and layout; `table.py` names them."""
