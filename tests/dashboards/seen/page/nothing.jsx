// What Grafana's core shows for a panel without data: the panel's own word for it, in the middle.
import { useTheme2 } from '@grafana/ui';
import { useEffect } from 'react';

import { note } from './notes.js';

export function NoData({ panel }) {
  const theme = useTheme2();
  const word = panel.fieldConfig?.defaults?.noValue ?? 'No data';
  useEffect(() => note(panel.id, 'nothing', word), [panel.id, word]);
  return (
    <div
      style={{
        display: 'flex', height: '100%', width: '100%', alignItems: 'center', justifyContent: 'center',
        color: theme.colors.text.secondary, fontSize: theme.typography.h5.fontSize,
      }}
    >
      {word}
    </div>
  );
}
