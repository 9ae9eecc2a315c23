"""Estimators on arrays: arrays go in and arrays come out; nothing here knows runs, tables or words."""
