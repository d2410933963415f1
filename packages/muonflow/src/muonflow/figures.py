def draw(predictions, about, directory):
    return []
