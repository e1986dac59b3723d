/// <reference types="vitest/config" />
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { basename, dirname, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig, type Plugin } from 'vite'

const here = dirname(fileURLToPath(import.meta.url))
const shipped = resolve(here, '../src/recuerdo/explain/static/page.html')
const slot = '<script type="application/json" id="recuerdo-data">null</script>'

/** The most bytes that the empty page may have. */
const largest = 150_000

/** The class that keeps a component's styles its own: short, and the same every time. */
const parts = ['App.svelte', ...readdirSync(resolve(here, 'src/parts')).sort()]
const cssHash = ({ filename }: { filename: string }) => `_${parts.indexOf(basename(filename)).toString(36)}`

/**
 * No server ever writes this page, so Svelte has nothing to take over ("hydrate"): with the flag a constant, its code for
 * that falls away.
 */
function noHydration(): Plugin {
  return {
    name: 'no-hydration',
    apply: 'build',
    transform(code, id) {
      if (!id.endsWith('/client/dom/hydration.js')) return null
      const constant = code.replace('export let hydrating = false', 'export const hydrating = false').replace('hydrating = value;', '')
      if (constant.length !== code.length + 2 - 'hydrating = value;'.length) throw new Error('this Svelte keeps its hydrating flag elsewhere')
      return { code: constant, map: null }
    },
  }
}

/** Put the one script and the one style sheet into the HTML and write it where Python ships it. */
function onePage(): Plugin {
  return {
    name: 'one-page',
    enforce: 'post',
    generateBundle(_, bundle) {
      let script = ''
      let style = ''
      let html = ''
      for (const [name, part] of Object.entries(bundle)) {
        if (part.type === 'chunk') script += part.code
        else if (name.endsWith('.css')) style += part.source
        else if (name.endsWith('.html')) html = String(part.source)
        if (!name.endsWith('.html')) delete bundle[name]
      }
      html = html
        .replace(/\s*<script type="module"[^>]*><\/script>/, '')
        .replace(/\s*<link rel="(?:stylesheet|modulepreload)"[^>]*>/g, '')
        .replace('</head>', () => `<style>${style.trim()}</style>\n</head>`)
        .replace('</body>', () => `<script type="module">${script.trim().replace(/<\/script/g, '<\\/script')}</script>\n</body>`)
      if (html.split(slot).length !== 2) throw new Error('the page must hold exactly one empty data slot')
      if (/sourceMappingURL/.test(html)) throw new Error('the page must not name a source map')
      if (Buffer.byteLength(html) > largest) this.error(`the page has ${Buffer.byteLength(html)} bytes; it may have ${largest}`)
      const page = bundle['index.html']
      if (page?.type === 'asset') page.source = html
      mkdirSync(dirname(shipped), { recursive: true })
      writeFileSync(shipped, html)
      console.log(`page.html: ${(Buffer.byteLength(html) / 1024).toFixed(1)} kB`)
    },
  }
}

export default defineConfig({
  plugins: [svelte({ compilerOptions: { cssHash } }), noHydration(), onePage()],
  build: { target: 'es2023', cssTarget: 'chrome125', sourcemap: false, modulePreload: false, assetsInlineLimit: 1e6, cssCodeSplit: false },
  test: { include: ['test/**/*.test.ts'] },
})
