/* The digit of the start page: a slider removes its pixels one by one; both logits and the verdict follow.
   Without this script the page shows two still pictures. It plays once by itself, unless the reader asked for
   reduced motion, and never again after the reader has touched it. */
(() => {
  const hero = document.getElementById("hero");
  if (!hero) return;
  const { unit, source, responses, seen } = JSON.parse(document.getElementById("hero-data").textContent);
  const live = hero.querySelector(".hero-live");
  const slider = hero.querySelector("input");
  const play = hero.querySelector(".hero-play");
  const verdict = hero.querySelector(".hero-seen");
  const last = seen.length - 1;
  const range = Math.max(...responses.flatMap((all) => [Math.abs(all[unit]), Math.abs(all[source])]));
  let timer = null;
  let touched = false;

  const signed = (value) => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(1);

  function show(step) {
    slider.value = step;
    slider.setAttribute("aria-valuetext", `${step} ${step === 1 ? "pixel" : "pixels"} removed, seen as ${seen[step]}`);
    hero.querySelector("output").textContent = step;
    for (const mark of live.querySelectorAll("[data-step]"))
      mark.classList.toggle("shown", Number(mark.dataset.step) <= step);
    if (verdict.textContent !== String(seen[step])) verdict.textContent = seen[step];
    for (const row of hero.querySelectorAll(".hero-logit")) {
      const digit = Number(row.dataset.class);
      const value = responses[step][digit];
      const bar = row.querySelector(".hero-bar");
      bar.style.left = `${50 + 50 * Math.min(0, value / range)}%`;
      bar.style.width = `${(50 * Math.abs(value)) / range}%`;
      row.querySelector(".hero-value").textContent = signed(value);
      row.classList.toggle("hero-first", digit === seen[step]);
    }
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  }

  function start() {
    if (Number(slider.value) === last) show(0);
    play.textContent = "Pause";
    timer = setInterval(() => {
      show(Number(slider.value) + 1);
      if (Number(slider.value) === last) stop();
    }, 400);
  }

  hero.querySelector(".hero-still").hidden = true;
  live.hidden = false;
  show(0);
  slider.addEventListener("input", () => { touched = true; stop(); show(Number(slider.value)); });
  play.addEventListener("click", () => { touched = true; timer ? stop() : start(); });
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches) setTimeout(() => { if (!touched) start(); }, 900);
})();
