// Text that a person cannot read whole: cut by its box, in width or, where lines are clamped, in height.
export function cutOff(root) {
  const found = [];
  for (const element of root.querySelectorAll('*')) {
    const own = [...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim() !== '');
    if (!own || element.closest('svg, style')) {
      continue;
    }
    let box = element;
    // Text may lie in an inner element and be cut by the nearest one that hides what flows over.
    for (let up = 0; up < 4 && box !== root; up++, box = box.parentElement) {
      const style = getComputedStyle(box);
      const clips = style.overflowX === 'hidden' || style.overflowX === 'clip' || style.textOverflow === 'ellipsis';
      if (!clips || style.display === 'inline') {
        continue;
      }
      const wide = box.scrollWidth > box.clientWidth + 1;
      const high = style.overflowY !== 'auto' && style.overflowY !== 'scroll' && box.scrollHeight > box.clientHeight + 3 && style.whiteSpace !== 'nowrap';
      if (wide || high) {
        found.push({
          text: element.textContent.trim(),
          shown: wide ? box.clientWidth / box.scrollWidth : box.clientHeight / box.scrollHeight,
          by: wide ? 'width' : 'height',
        });
      }
      break;
    }
  }
  return found;
}

// How well text stands out from what it lies on (WCAG's contrast, 1 to 21), for each text with a colour of its own.
export function contrasts(root, base) {
  const found = [];
  for (const element of root.querySelectorAll('*')) {
    const own = [...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.textContent.trim() !== '');
    if (!own || element.closest('style')) {
      continue;
    }
    let under = base;
    const layers = [];
    for (let up = element; up && up !== document.body; up = up.parentElement) {
      layers.unshift(rgba(getComputedStyle(up).backgroundColor));
    }
    for (const layer of [rgba(base), ...layers]) {
      under = over(layer, Array.isArray(under) ? under : rgba(under));
    }
    const text = over(rgba(getComputedStyle(element).color), under);
    const [high, low] = [luminance(text), luminance(under)].sort((a, b) => b - a);
    found.push({ text: element.textContent.trim().slice(0, 80), size: parseFloat(getComputedStyle(element).fontSize), contrast: (high + 0.05) / (low + 0.05) });
  }
  return found;
}

function rgba(colour) {
  const context = (rgba.context ??= document.createElement('canvas').getContext('2d', { willReadFrequently: true }));
  context.clearRect(0, 0, 1, 1);
  context.fillStyle = colour;
  context.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data;
  return [r, g, b, a / 255];
}

function over([r, g, b, a], [r2, g2, b2]) {
  return [r * a + r2 * (1 - a), g * a + g2 * (1 - a), b * a + b2 * (1 - a), 1];
}

function luminance([r, g, b]) {
  const [x, y, z] = [r, g, b].map((c) => (c / 255 <= 0.04045 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4));
  return 0.2126 * x + 0.7152 * y + 0.0722 * z;
}
