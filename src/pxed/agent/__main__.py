print("agent starts")
