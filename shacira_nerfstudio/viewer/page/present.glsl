// A picture, scaled to the window.
precision highp float;
uniform sampler2D picture;
uniform vec2 size;  // of what is drawn on, pixels
out vec4 pixel;

void main() { pixel = vec4(texture(picture, gl_FragCoord.xy / size).xyz, 1); }
