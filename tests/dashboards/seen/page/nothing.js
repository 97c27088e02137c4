// Stands in for packages of the library that no panel uses: any name of it is nothing.
module.exports = new Proxy({}, { get: () => undefined });
