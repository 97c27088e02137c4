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
