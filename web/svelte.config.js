// Svelte needs no options beyond those in vite.config.ts.
export default {}
