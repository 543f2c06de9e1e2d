"""Operations on rows of the table of latents: look-ups, rates, Adam."""
