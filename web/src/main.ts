import { mount, tick } from 'svelte'
import './app.css'
import App from './App.svelte'
import { Book, dataInside } from './data/book'
import { Look } from './look.svelte'
import { rules } from './scale'
import Plain from './parts/Plain.svelte'
import { windowOnto } from './window'

const target = document.getElementById('page') as HTMLElement

async function open(): Promise<void> {
  const data = dataInside(document)
  if (data === null) {
    mount(Plain, { target, props: { why: null } })
    return
  }
  const look = new Look(new Book(data))
  await look.open()
  const paint = document.createElement('style')
  paint.textContent = rules()
  document.head.append(paint)
  document.title = `${data.title} · recuerdo`
  mount(App, { target, props: { look } })
  await tick()
  performance.mark('recuerdo-open')
  await look.openRest()
  Object.assign(window, { recuerdo: windowOnto(look) })
}

open().catch((error: unknown) => {
  console.info(error)
  target.replaceChildren()
  mount(Plain, { target, props: { why: error instanceof Error ? error.message : String(error) } })
})
