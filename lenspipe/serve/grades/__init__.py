"""Grades that people give to candidates: the events on disk, and what follows from them.

`event` what happens, `scheme` which grades there are, `stores` where events are kept, `state` what
holds for a grader now, `book` the three together for a service; `order` who sees what when; `votes`
grades as arrays, on which `agreement`, `consensus`, `combine` and `reliability` compute.
"""
