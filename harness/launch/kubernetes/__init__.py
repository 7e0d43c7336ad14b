"""Trials in a Kubernetes cluster: one Indexed Job a trial, its output and files back by the pods' output."""
