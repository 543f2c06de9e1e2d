"""Operations on rays: marching, compositing, and whole fields seen along rays."""
