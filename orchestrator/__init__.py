"""What runs where and when: studies, plans, Ray and MLflow. Knows no tensor maths."""
