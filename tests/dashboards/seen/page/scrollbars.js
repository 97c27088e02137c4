// The library's modules are ES modules of Node's kind, to which this package's default export is hidden in an object.
export { Scrollbars as default } from 'scrollbars-itself';
