"""Decides what runs where and when: studies, plans, Ray and MLflow. Holds no tensor maths."""
